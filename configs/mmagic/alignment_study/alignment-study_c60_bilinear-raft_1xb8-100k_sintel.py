# Alignment study: OF warp, bilinear, RAFT flow (Table 1, Fig. 3).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './alignment-study_c60_implicit_1xb8-100k_sintel.py'

experiment_name = 'alignment-study_c60_bilinear-raft_1xb8-100k_sintel'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='flow_warp', alignment_options=dict(mode='bilinear')))

flow = dict(flow='raft')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = [
    dict(loader, dataset=dict(loader['dataset'], **flow))
    for loader in _base_.test_dataloader
]
