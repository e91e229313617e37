//! The numbers of layers that are read lazily: they are part of inode numbers, which mean the same after a restart.

/// Why numbers cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NumberError(pub Box<dyn std::error::Error + Send + Sync>);

/// Gives layers their numbers, and keeps them across restarts.
pub trait LayerNumbers: std::fmt::Debug + Send + Sync {
    /// The number of the layer with this name: the one that it has, or a new one.
    ///
    /// # Errors
    /// If the numbers cannot be read or written.
    fn number_of(&self, layer: &str) -> Result<u32, NumberError>;

    /// The names of all layers that have a number.
    ///
    /// # Errors
    /// If the numbers cannot be read.
    fn numbered(&self) -> Result<Vec<String>, NumberError>;

    /// Forgets the number of a layer.
    ///
    /// # Errors
    /// If the numbers cannot be written.
    fn forget(&self, layer: &str) -> Result<(), NumberError>;
}
