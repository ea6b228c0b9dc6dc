# Sec. B.2: fine-tuned from the REDS weights for 300k iterations on 14 frames, the 7 of a septuplet
# and back.
# The paper trains only on BI; this is the same training on BD.
_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/vimeo90k-bd.py',
    '../_base_/models/ia-cnn_c64b30.py',
    '../_base_/schedules/300k.py',
]

experiment_name = 'ia-cnn_c64b30_8xb1-300k_vimeo90k-bd'
work_dir = f'./work_dirs/{experiment_name}'

load_from = 'work_dirs/ia-cnn_c64b30_8xb1-300k_reds4/iter_300000.pth'
