_base_ = 'mmagic::_base_/default_runtime.py'

# Registers the networks, and repairs this MMagic for current PyTorch and for mmcv-lite.
custom_imports = dict(
    imports=['iart_plugin.mmagic'], allow_failed_imports=False)

custom_hooks = [
    # During a test this hook would build the training data set only to find out the iteration.
    dict(type='BasicVisualizationHook', interval=1, on_test=False),
    # The checkpoint's state_dict holds the averaged weights, which is what test.py loads.
    dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=0.001,
        priority='ABOVE_NORMAL'),
    dict(type='FrozenFlowHook', iterations=5000),
    dict(type='CheckpointFitHook'),
    dict(type='ResumeOwnHook'),
    dict(type='ResumeDataHook'),
    dict(type='ProcessSeedHook'),
    dict(type='FiniteStepsHook'),
]

default_hooks = dict(
    # Log a validation's metrics at its iteration. By default MMEngine uses the epoch, which is 0.
    logger=dict(log_metric_by_epoch=False),
    # Checkpoints go to --work-dir. MMagic itself keeps only the last name of that folder and writes
    # to ./work_dirs, where two runs of the same name would overwrite each other.
    checkpoint=dict(out_dir=None))

# Shows losses, rates, PSNR, SSIM and a frame of every validated clip, on disk and in TensorBoard.
vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='TensorboardVisBackend'),
]
visualizer = dict(type='MiddleFrameVisualizer', vis_backends=vis_backends)
