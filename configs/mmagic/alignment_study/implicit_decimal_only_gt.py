# Alignment study: IA, encoding of decimals only, GT flow (Table 3).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './base.py'

experiment_name = 'alignment-study_implicit_decimal_only_gt'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='implicit', alignment_options=dict(encode_window=False, encode_decimal=True)))

flow = dict(flow='gt')
train_dataloader = dict(dataset=flow)
val_dataloader = dict(dataset=flow)
test_dataloader = dict(dataset=flow)
