# Alignment study: image, bilinear, RAFT flow (Fig. 3).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './base.py'

experiment_name = 'alignment-study_image_bilinear_raft'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='flow_warp', align='images', alignment_options=dict(mode='bilinear')))

flow = dict(flow='raft')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = dict(dataset=flow)
