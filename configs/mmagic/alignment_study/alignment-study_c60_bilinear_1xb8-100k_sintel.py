# Table 1: OF warp, bilinear, ground-truth flow.
_base_ = './alignment-study_c60_implicit_1xb8-100k_sintel.py'

experiment_name = 'alignment-study_c60_bilinear_1xb8-100k_sintel'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(alignment='flow_warp', alignment_options=dict(mode='bilinear')))
