# Alignment study: image, bilinear, SPyNet flow (Fig. 3).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './base.py'

experiment_name = 'alignment-study_image_bilinear_spynet'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='flow_warp', align='images', alignment_options=dict(mode='bilinear')))

flow = dict(flow='spynet', flow_weights='weights/spynet_sintel_final.pth')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = dict(dataset=flow)
