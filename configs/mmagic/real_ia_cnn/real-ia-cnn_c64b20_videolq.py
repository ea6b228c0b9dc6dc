# VideoLQ: real footage without ground truth, measured by NIQE of each clip's first, middle and last
# frame. Frames are cleaned again while that changes them, at most three times.
_base_ = './real-ia-cnn_c64b20-1x30x8_8xb1-lr5e-5-150k_reds.py'

experiment_name = 'real-ia-cnn_c64b20_videolq'
work_dir = f'./work_dirs/{experiment_name}'

load_from = None
model = dict(
    generator=dict(clean_passes=3, clean_threshold=5 / 255),
    discriminator=None,
    perceptual_loss=None,
    gan_loss=None)

test_evaluator = dict(
    metrics=[dict(type='VideoLQNIQE', input_order='CHW', convert_to='Y')])
