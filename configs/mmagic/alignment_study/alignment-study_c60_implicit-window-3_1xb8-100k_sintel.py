# Alignment study: IA, window 3x3, GT flow (Table 4).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './alignment-study_c60_implicit_1xb8-100k_sintel.py'

experiment_name = 'alignment-study_c60_implicit-window-3_1xb8-100k_sintel'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='implicit', alignment_options=dict(window_size=3)))
