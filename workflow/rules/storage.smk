# Where files are: on a disk that all jobs see, or in a storage of which each job fetches what its
# rule names (docs/storage.md).
from tempfile import TemporaryDirectory

STORED = workflow.storage_settings.default_storage_provider is not None


def stored(path):
    """Return the object of the default storage that holds a file or folder of the workflow."""
    prefix = (workflow.storage_settings.default_storage_prefix or "").rstrip("/")
    provider = workflow.storage_registry.default_storage_provider
    return provider.object(f"{prefix}/{path}" if prefix else path)


def here(path):
    """Return where a stage finds a file or folder: if it is stored, where Snakemake copies it."""
    return str(stored(path).local_path()) if STORED else path


@cache
def copy_of_index(name):
    """Return a copy of a stored index for this process to plan by, which goes when it ends.

    Snakemake's own copies are those of jobs: it removes each file that none of them needs any more.
    """
    holder = TemporaryDirectory(prefix="brnf-index-")
    COPIES.append(holder)
    index = stored(f"results/{name}/index")
    index.set_local_path(Path(holder.name, "index"))
    index.retrieve_object()
    return index.local_path()


COPIES = []


def address_of(wildcards):
    """Return the address of a data set's folder, or None; a table's photographs lie beside it."""
    dataset = experiment(wildcards).settings["dataset"]
    key = "table" if dataset["kind"] == "table" else "root"
    place = dataset[key] if dataset["kind"] != "scenes" else None
    if not is_address(place):
        return None
    if not STORED:
        sys.exit(
            f"error: configuration: dataset.{key}: an address needs a storage for results, too, by "
            "--default-storage-provider (docs/storage.md)"
        )
    return os.path.dirname(place) if key == "table" else place.rstrip("/")


def imported_folder(wildcards):
    """Return for `input` the folder of a user's maps, on this disk or made by this workflow."""
    folder = experiment(wildcards).settings["base"]["import"]["folder"]
    return local(folder) if STORED and not folder.startswith("results/") else folder


def annotations(wildcards):
    """Return for `input` what masks of COCO are drawn from, where that must be fetched."""
    place = address_of(wildcards)
    return [storage(f"{place}/annotations")] if place else []


def packs_of(kind, split, shard=None):
    """Return a function for `input`: packs of images or masks of a split, or of a shard.

    On a disk that all see there are none: a stage reads the files where they lie.

    Arguments:
        kind: images or masks.
        split: returns the split for the wildcards.
        shard: returns the shard; None takes all that hold an image.
    """

    def of(wildcards):
        if not STORED:
            return []
        index = index_folder(wildcards)
        checkpoints.pack_images.get(name=wildcards.name)
        pattern = f"results/{wildcards.name}/packed/{kind}/{{split}}/{{shard}}.h5"
        chosen = split(wildcards)
        if shard is not None:
            return [pattern.format(split=chosen, shard=shard(wildcards))]
        return shards(index, pattern, chosen)

    return of


def packed_shard(kind="images"):
    """Return a function for `input`: the pack of the shard that a job works on."""
    return packs_of(kind, lambda wildcards: wildcards.split, lambda wildcards: wildcards.shard)
