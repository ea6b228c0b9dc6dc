# Alignment study: w/o Prop., GT flow (Fig. 3).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './base.py'

experiment_name = 'alignment-study_no_propagation_gt'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment=None))

flow = dict(flow='gt')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = dict(dataset=flow)
