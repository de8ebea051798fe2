"""`make corpus`: networks that nobody here wrote, through every stage, beside onnxruntime's quantiser and OnnxSlim."""
