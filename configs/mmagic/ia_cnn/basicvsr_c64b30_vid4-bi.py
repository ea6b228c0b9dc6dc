# The baseline on Vid4 BI: IA-CNN without the extractor and with flow warping is exactly BasicVSR,
# so BasicSR's and MMagic's BasicVSR checkpoints load as they are.
_base_ = './ia-cnn_c64b30_vid4-bi.py'

experiment_name = 'basicvsr_c64b30_vid4-bi'
work_dir = f'./work_dirs/{experiment_name}'

model = dict(generator=dict(
    alignment='flow_warp', alignment_options=dict(_delete_=True), extractor=False))
