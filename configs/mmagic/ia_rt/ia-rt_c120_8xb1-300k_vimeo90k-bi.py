# Sec. B.2: initialised with the REDS weights, 300k iterations on 7 frames.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/vimeo90k-bi.py',
    '../_base_/models/ia-rt_c120.py',
    '../_base_/schedules/300k.py',
]

experiment_name = 'ia-rt_c120_8xb1-300k_vimeo90k-bi'
work_dir = f'./work_dirs/{experiment_name}'

# The septuplet is used as it is; only IA-CNN's training adds the same frames backwards.
train_pipeline = [
    transform for transform in _base_.train_pipeline
    if transform['type'] != 'MirrorSequence'
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

load_from = 'work_dirs/ia-rt_c120_8xb1-600k_reds4/iter_600000.pth'
