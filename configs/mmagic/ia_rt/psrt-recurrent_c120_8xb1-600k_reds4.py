# The baseline: PSRT-recurrent, the same network with patch alignment.
_base_ = './ia-rt_c120_8xb1-600k_reds4.py'

experiment_name = 'psrt-recurrent_c120_8xb1-600k_reds4'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='patch'))
