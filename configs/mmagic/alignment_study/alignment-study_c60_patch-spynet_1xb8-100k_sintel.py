# Alignment study: PA, SPyNet flow (Table 1).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './alignment-study_c60_implicit_1xb8-100k_sintel.py'

experiment_name = 'alignment-study_c60_patch-spynet_1xb8-100k_sintel'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='patch'))

flow = dict(flow='spynet', flow_weights='weights/spynet_sintel_final.pth')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = [
    dict(loader, dataset=dict(loader['dataset'], **flow))
    for loader in _base_.test_dataloader
]
