"""Messages of KServe's Open Inference Protocol; the types stand beside this file."""

from pathlib import Path

from portrait_client.contract import define_messages

define_messages(Path(__file__).with_name("inference.binpb"), globals())
