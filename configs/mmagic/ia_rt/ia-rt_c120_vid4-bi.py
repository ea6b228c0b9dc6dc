# Vid4 BI alone, for those who have only this data set.
_base_ = './ia-rt_c120_8xb1-300k_vimeo90k-bi.py'

experiment_name = 'ia-rt_c120_vid4-bi'
work_dir = f'./work_dirs/{experiment_name}'

test_dataloader = [_base_.vid4_bi_dataloader]
test_evaluator = [_base_.vid4_bi_evaluator]
