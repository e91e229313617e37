//! `soci rebuild-db`.

use crate::store::Rebuilt;

use crate::cli::app::App;

pub(crate) async fn run(app: &App) -> anyhow::Result<()> {
    let Rebuilt { dropped, unknown, indexes, artifacts } = app.store()?.rebuild().await?;
    // The reference is silent here, so that stdout stays empty.
    app.output.note(format_args!(
        "{dropped} records dropped, {indexes} of indexes and {artifacts} of zTOCs and prefetch artifacts added"
    ));
    if unknown > 0 {
        app.output.warn(format_args!(
            "containerd does not answer, and may have what {unknown} records speak of: they stay. `--content-store soci` \
             drops them"
        ));
    }
    Ok(())
}
