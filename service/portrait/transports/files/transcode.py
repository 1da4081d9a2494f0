"""Transcoding: a video in, every frame of it worked on, a video out; files, pipes, devices and addresses."""

from portrait.errors import BadPicture
from portrait.transports.files.backend import Work
from portrait.transports.files.places import is_live, without_secrets
from portrait.transports.files.reader import Progress, Reader, Stopped, open_source
from portrait.transports.files.report import Done
from portrait.transports.files.writer import Writer, paced


def process_video(source: str, target: str, place: str, work: Work, progress: Progress) -> Done:
    """Every frame of the video at `source`, with its sound, written to `place`, which messages call `target`.

    A live source ends with Stopped, with an interrupt from the keyboard, or when its other side is lost; what has come
    until then is written whole. What is damaged is left out, and told.

    Raises:
        BadPicture: the source is no video, or none of it can be decoded.
        BadOption: the target's format cannot hold it.
        Stopped: `progress` has raised it, and the source is a file.
        BrokenPipeError: the target is standard output, and its reader has ended.
    """
    with open_source(source) as container:
        reader = Reader(container, source)
        writer = Writer(reader, place, target, paced=paced(source, target))
        try:
            frames = reader.frames(writer.add_tracks(), writer.write_beside, progress)
            try:
                for result in work(frames):
                    writer.write(result)
            except (KeyboardInterrupt, Stopped):
                if not is_live(source):
                    raise
            if not writer.frames:
                raise BadPicture("IN", without_secrets(f"{source}: ended before its first picture"))
            writer.finish()
        finally:
            writer.close()
        return Done(writer.frames, _notes(reader, writer))


def _notes(reader: Reader, writer: Writer) -> tuple[str, ...]:
    notes = list(writer.notes)
    if damaged := reader.damaged + writer.damaged:
        notes.append(f"{damaged} damaged {'packet is' if damaged == 1 else 'packets are'} left out or shown in part")
    if reader.cut:
        notes.append(f"the source is lost after {writer.frames} frames, what has come is written: {reader.cut}")
    return tuple(notes)
