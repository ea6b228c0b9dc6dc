# Alignment study: IA, encoding of decimals only, GT flow (Table 3).
# Written by tools/make_study_configs.py. Do not edit: change iart_plugin/study.
_base_ = './alignment-study_c60_implicit_1xb8-100k_sintel.py'

experiment_name = 'alignment-study_c60_implicit-decimal-only_1xb8-100k_sintel'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='implicit', alignment_options=dict(encode_window=False, encode_decimal=True)))
