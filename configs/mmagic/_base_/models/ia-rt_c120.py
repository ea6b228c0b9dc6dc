# IA-RT: PSRT-recurrent with implicit alignment (Sec. 6, A of the supplement).
model = dict(
    type='BasicVSR',
    generator=dict(
        type='IART',
        mid_channels=64,
        embed_dim=120,
        depths=(6, 6, 6),
        num_heads=(6, 6, 6),
        window_size=(3, 8, 8),
        num_frames=3),
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
