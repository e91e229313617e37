//! Images that are being pulled: which index they have, and each layer made ready before containerd asks for it.
//!
//! containerd asks for one layer at a time, bottom first, and waits for each. So the first request for an image starts
//! all there is to do: the index is looked for, the zTOCs of all layers from the one asked for upwards are fetched at
//! the same time, and layers without one are fetched and unpacked into scratch directories ([`Scratch`]). A request
//! then takes what it is for ([`PulledLayer`]).
//!
//! Nothing that went wrong is remembered for longer than the pull it belongs to: a pull begins with a request for the
//! lowest layer, or for one that was asked for before, or after a pause. (containerd does not ask for the layers that
//! it has, such as those of a base image: the first request of a repeated pull is for the layer that failed.)

mod chosen;
mod context;
mod error;
mod facts;
mod image_pull;
mod images;
mod layer_maker;
mod options;
mod pulled_layer;
mod request;
mod scratch;

pub use chosen::ChosenIndexes;
pub use error::{FactsError, FitError, UnpackLayerError, WhyDeferred, WhyUnplaced};
pub use images::{Images, Pulled};
pub use options::{ContentOfNamespace, PullOptions, Surroundings, UNLIMITED};
pub(super) use pulled_layer::check_over;
pub use pulled_layer::{LazyPulledLayer, Position, PulledLayer, UnpackedLayer};
pub use request::{LayerRequest, RequestError};
pub use scratch::{Scratch, ScratchRoot};
