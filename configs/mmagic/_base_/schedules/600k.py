_base_ = './300k.py'

max_iters = 600_000
train_cfg = dict(max_iters=max_iters)
param_scheduler = dict(periods=[max_iters])
