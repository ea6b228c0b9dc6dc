"""The smallest scale at which the study's tests train."""

from iart_plugin.study.scale import Scale

SCALE = Scale(
    iterations=4,
    batch_size=2,
    num_frames=2,
    crop_size=8,
    embed_dim=8,
    mid_channels=4,
    depths=(1,),
    search_iterations=0,
)
