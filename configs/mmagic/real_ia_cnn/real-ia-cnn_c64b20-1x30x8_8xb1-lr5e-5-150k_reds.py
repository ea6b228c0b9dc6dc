# The second stage: 150k iterations with pixel, cleaning, perceptual and adversarial loss, from the
# averaged weights of the first stage. Losses, discriminator and rates are those of MMagic's
# realbasicvsr_c64b20-1x30x8_8xb1-lr5e-5-150k_reds.py, which cannot be a second base.
_base_ = './real-ia-cnn_wogan-c64b20-2x30x8_8xb2-lr1e-4-300k_reds.py'

experiment_name = 'real-ia-cnn_c64b20-1x30x8_8xb1-lr5e-5-150k_reds'
work_dir = f'./work_dirs/{experiment_name}'

load_from = f'work_dirs/{_base_.experiment_name}/iter_300000.pth'

model = dict(
    discriminator=dict(
        type='UNetDiscriminatorWithSpectralNorm',
        in_channels=3,
        mid_channels=64,
        skip_connection=True),
    perceptual_loss=dict(
        type='PerceptualLoss',
        layer_weights={
            '2': 0.1,
            '7': 0.1,
            '16': 1.0,
            '25': 1.0,
            '34': 1.0,
        },
        vgg_type='vgg19',
        perceptual_weight=1.0,
        style_weight=0,
        norm_img=False,
        # Or a path: torchvision's vgg19-dcbb9e9d.pth.
        pretrained='torchvision://vgg19'),
    gan_loss=dict(
        type='GANLoss',
        gan_type='vanilla',
        loss_weight=5e-2,
        real_label_val=1.0,
        fake_label_val=0),
    is_use_sharpened_gt_in_percep=True,
    is_use_sharpened_gt_in_gan=False,
    init_cfg=None)

optim_wrapper = dict(
    generator=dict(optimizer=dict(lr=5e-5)),
    discriminator=dict(
        type='OptimWrapper',
        optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99))))

# One clip a GPU, as the file's name says and as it was published; MMagic's config keeps the 2 of
# its base.
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_iters=150_000)
