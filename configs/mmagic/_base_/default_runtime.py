_base_ = 'mmagic::_base_/default_runtime.py'

# Registers the networks, and mends what this MMagic needs on current PyTorch and on mmcv-lite.
custom_imports = dict(
    imports=['iart_plugin.mmagic'], allow_failed_imports=False)

custom_hooks = [
    # In a test this hook would build the training data set, to learn the iteration.
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
    # A validation's figures belong to its iteration: to MMEngine it is at epoch 0, so at step 0.
    logger=dict(log_metric_by_epoch=False),
    # In --work-dir: MMagic writes to ./work_dirs and that folder's last name alone, where runs
    # of one name in two places would overwrite each other.
    checkpoint=dict(out_dir=None))

# Losses, rates, PSNR, SSIM and a frame of every validated clip, on disk and in TensorBoard.
vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='TensorboardVisBackend'),
]
visualizer = dict(type='MiddleFrameVisualizer', vis_backends=vis_backends)
