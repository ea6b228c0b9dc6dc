# Vid4 BD alone, for those who have only this data set.
_base_ = './ia-cnn_c64b30_8xb1-300k_vimeo90k-bd.py'

experiment_name = 'ia-cnn_c64b30_vid4-bd'
work_dir = f'./work_dirs/{experiment_name}'

test_dataloader = [_base_.vid4_bd_dataloader]
test_evaluator = [_base_.vid4_bd_evaluator]
