# The baseline on VideoLQ: RealIACNN without the extractor and with flow warping is exactly
# RealBasicVSR, so that the public weights load as they are:
# realbasicvsr_c64b20_1x30x8_lr5e-5_150k_reds_20211104-52f77c2c.pth
_base_ = './real-ia-cnn_c64b20_videolq.py'

experiment_name = 'realbasicvsr_c64b20_videolq'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(
    alignment='flow_warp', alignment_options=dict(_delete_=True), extractor=False))
