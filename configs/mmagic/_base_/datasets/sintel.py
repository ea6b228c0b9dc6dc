# The alignment study's data (Sec. B.1): Sintel's clean frames with ground-truth flow, 20 clips
# for training, ambush_5, market_6 and mountain_1 for testing.
data_root = 'data/Sintel'

train_dataloader = dict(
    num_workers=4,
    batch_size=8,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='SintelFlowDataset',
        root=data_root,
        clips='train',
        num_frames=5,
        augment=dict(type='FlowAugmentation', crop_size=64)))

val_dataloader = dict(
    num_workers=1,
    batch_size=1,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='SintelFlowDataset', root=data_root, clips='test'))
val_evaluator = dict(
    type='Evaluator', metrics=[
        dict(type='PSNR'),
        dict(type='SSIM'),
    ])

test_dataloader = [val_dataloader]
test_evaluator = [[
    dict(type='PSNR', prefix='Sintel-RGB'),
    dict(type='SSIM', prefix='Sintel-RGB'),
]]
test_cfg = dict(type='MultiTestLoop')
