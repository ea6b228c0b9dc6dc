# Sec. B.2: REDS, 15 frames, 300k iterations.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/reds4.py',
    '../_base_/models/ia-cnn_c64b30.py',
    '../_base_/schedules/300k.py',
]

experiment_name = 'ia-cnn_c64b30_8xb1-300k_reds4'
work_dir = f'./work_dirs/{experiment_name}'

train_dataloader = dict(dataset=dict(num_input_frames=15))
