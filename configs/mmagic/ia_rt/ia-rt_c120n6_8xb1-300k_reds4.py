# Table 2's other row: REDS, 6 frames, 300k iterations.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/reds4.py',
    '../_base_/models/ia-rt_c120.py',
    '../_base_/schedules/300k.py',
]

experiment_name = 'ia-rt_c120n6_8xb1-300k_reds4'
work_dir = f'./work_dirs/{experiment_name}'

train_dataloader = dict(dataset=dict(num_input_frames=6))
