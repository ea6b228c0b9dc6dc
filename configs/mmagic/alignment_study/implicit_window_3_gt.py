# Alignment study: IA, window 3x3, GT flow (Table 4).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './base.py'

experiment_name = 'alignment-study_implicit_window_3_gt'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='implicit', alignment_options=dict(window_size=3)))

flow = dict(flow='gt')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = dict(dataset=flow)
