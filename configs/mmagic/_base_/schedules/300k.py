# Sec. B.2: 300k iterations, learning rate from 2e-4 to 1e-7 on a cosine, batch 8 (8 GPUs x 1).
max_iters = 300_000

train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='MultiValLoop')

optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=2e-4, betas=(0.9, 0.99)),
    paramwise_cfg=dict(custom_keys={'spynet': dict(lr_mult=0.125)}))

param_scheduler = dict(
    type='CosineRestartLR',
    by_epoch=False,
    periods=[max_iters],
    restart_weights=[1],
    eta_min=1e-7)
