# Alignment study: PA, RAFT flow (Table 1).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './base.py'

experiment_name = 'alignment-study_patch_raft'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='patch'))

flow = dict(flow='raft')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = dict(dataset=flow)
