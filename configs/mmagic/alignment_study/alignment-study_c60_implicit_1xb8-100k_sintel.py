# Table 1's last row: implicit alignment, ground-truth flow. The other rows' configs inherit from it;
# tools/alignment_study.py --print-commands prints the overrides for everything else.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/sintel.py',
    '../_base_/schedules/300k.py',
]

experiment_name = 'alignment-study_c60_implicit_1xb8-100k_sintel'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(
    type='FlowGivenVSR',
    generator=dict(
        type='AlignmentStudyNet',
        alignment='implicit',
        embed_dim=60,
        depths=(3, 3, 3),
        num_heads=6),
    pixel_loss=dict(type='CharbonnierLoss', loss_weight=1.0, reduction='mean'),
    train_cfg=dict(fix_iter=-1),
    data_preprocessor=dict(
        type='DataPreprocessor',
        mean=[0., 0., 0.],
        std=[255., 255., 255.],
    ))

# Sec. B.1: 100k iterations, batch 8. The data provides flow, so there is no flow network to freeze.
max_iters = 100_000
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(periods=[max_iters])
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True))
custom_hooks = [
    hook for hook in _base_.custom_hooks if hook['type'] != 'FrozenFlowHook'
]
