//! What an image is stacked from: directories, and trees that each show consecutive lazy layers.

/// One of the parts that an image is stacked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StackPart<T, D> {
    /// What one tree shows.
    Tree(T),
    /// What is in one directory.
    Directory(D),
}

/// Puts consecutive lazy layers together; what is in directories stays apart. Layers and parts come bottom first.
pub(crate) fn stack_parts<L, D>(
    layers: impl IntoIterator<Item = StackPart<L, D>>,
) -> Vec<StackPart<Vec<L>, D>> {
    let mut parts: Vec<StackPart<Vec<L>, D>> = Vec::new();
    for layer in layers {
        match (layer, parts.last_mut()) {
            (StackPart::Tree(layer), Some(StackPart::Tree(run))) => run.push(layer),
            (StackPart::Tree(layer), _) => parts.push(StackPart::Tree(vec![layer])),
            (StackPart::Directory(directory), _) => parts.push(StackPart::Directory(directory)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use StackPart::{Directory, Tree};

    #[test]
    fn only_consecutive_lazy_layers_share_a_tree() {
        let layers = [Directory('a'), Tree(1), Tree(2), Directory('b'), Directory('c'), Tree(3)];
        let parts = [Directory('a'), Tree(vec![1, 2]), Directory('b'), Directory('c'), Tree(vec![3])];
        assert_eq!(stack_parts(layers), parts);
        assert_eq!(stack_parts::<u8, char>([]), []);
    }
}
