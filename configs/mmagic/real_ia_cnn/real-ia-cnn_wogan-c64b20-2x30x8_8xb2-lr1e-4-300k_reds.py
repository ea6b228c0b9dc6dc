# Fig. 6: RealBasicVSR with implicit alignment. The first stage, without a GAN: 300k iterations with
# a loss of pixels and one of the cleaned frames. Losses, data and degradations are MMagic's.
# ../_base_/default_runtime.py cannot be a second base, because MMEngine refuses two bases that set
# the same key. Some of its settings are therefore repeated below.
_base_ = 'mmagic::real_basicvsr/realbasicvsr_wogan-c64b20-2x30x8_8xb2-lr1e-4-300k_reds.py'  # noqa

experiment_name = 'real-ia-cnn_wogan-c64b20-2x30x8_8xb2-lr1e-4-300k_reds'
work_dir = f'./work_dirs/{experiment_name}'

# Registers the networks, and repairs this MMagic for current PyTorch and for mmcv-lite.
custom_imports = dict(
    imports=['iart_plugin.mmagic'], allow_failed_imports=False)

model = dict(
    generator=dict(
        _delete_=True,
        type='RealIACNN',
        num_feat=64,
        num_block=20,
        num_clean_block=20,
        num_heads=8,
        # Not in the paper: channels from which a pixel's position is read exactly, so that the
        # network can start from a RealBasicVSR (docs/ia_cnn_training.md).
        alignment_options=dict(position_channels=16, padding_mode='zeros'),
        # In training a frame is cleaned once, whatever is left of its noise.
        clean_passes=1),
    # This file is read only when training starts: checkpoints hold these weights too.
    init_cfg=dict(
        type='PretrainedFlow',
        checkpoint='https://download.openmmlab.com/mmediting/restorers/'
        'basicvsr/spynet_20210409-c6c1bd09.pth'))

custom_hooks = [
    # During a test this hook would build the training data set only to find out the iteration.
    dict(type='BasicVisualizationHook', interval=1, on_test=False),
    dict(
        type='ExponentialMovingAverageHook',
        module_keys=('generator_ema'),
        interval=1,
        interp_cfg=dict(momentum=0.001)),
    dict(type='StartFromAverageHook'),
    # RealBasicVSR never trains the flow network.
    dict(type='FrozenFlowHook', iterations=300_000),
    dict(type='CheckpointFitHook'),
    dict(type='ResumeOwnHook'),
    dict(type='ResumeDataHook'),
    dict(type='ProcessSeedHook'),
    dict(type='FiniteStepsHook'),
]

default_hooks = dict(
    logger=dict(log_metric_by_epoch=False), checkpoint=dict(out_dir=None))

vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='TensorboardVisBackend'),
]
visualizer = dict(type='MiddleFrameVisualizer', vis_backends=vis_backends)
