# IA-CNN: BasicVSR with implicit alignment (Sec. 6, A of the supplement).
model = dict(
    type='BasicVSR',
    generator=dict(
        type='IACNN',
        num_feat=64,
        num_block=30,
        num_heads=8,
        # Not in the paper: channels from which a pixel's position is read exactly
        # (docs/ia_cnn_training.md).
        alignment_options=dict(position_channels=16, padding_mode='zeros')),
    pixel_loss=dict(type='CharbonnierLoss', loss_weight=1.0, reduction='mean'),
    # FrozenFlowHook freezes the flow network; -1 keeps BasicVSR from changing requires_grad.
    train_cfg=dict(fix_iter=-1),
    # This file is read only when training starts: checkpoints hold these weights too.
    init_cfg=dict(
        type='PretrainedFlow',
        checkpoint='https://download.openmmlab.com/mmediting/restorers/'
        'basicvsr/spynet_20210409-c6c1bd09.pth'),
    data_preprocessor=dict(
        type='DataPreprocessor',
        mean=[0., 0., 0.],
        std=[255., 255., 255.],
    ))
