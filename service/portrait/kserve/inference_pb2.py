"""Messages of KServe's Open Inference Protocol; the types stand beside this file.

Their names are that protocol's, and other packages define them too, such as tritonclient: hence a pool of their own.
"""

from pathlib import Path

from google.protobuf.descriptor_pool import DescriptorPool

from portrait_client.contract import define_messages

define_messages(Path(__file__).with_name("inference.binpb"), globals(), DescriptorPool())
