# Vimeo-90K with blur-down degradation (BD): Gaussian blur of sigma 1.6, then every fourth pixel.
_base_ = './vimeo90k-bi.py'

degradation = 'BDx4'
train_dataloader = dict(
    dataset=dict(data_prefix=dict(img=degradation, gt='GT')))
val_dataloader = dict(
    dataset=dict(data_prefix=dict(img=degradation, gt='GT')))
