# Alignment study: IA, window 3x3, SPyNet flow (Table 4).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './base.py'

experiment_name = 'alignment-study_implicit_window_3_spynet'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='implicit', alignment_options=dict(window_size=3)))

flow = dict(flow='spynet', flow_weights='weights/spynet_sintel_final.pth')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = dict(dataset=flow)
