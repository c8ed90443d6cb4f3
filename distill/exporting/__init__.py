"""Exports students to the formats of other runtimes, and compares each file with the student.

    distill.export("runs/demo", "onnx")   # → runs/demo/student/onnx

`make` has the command. MODEL_FORMATS names the function that writes a kind of student in a format. `onnx`, `gguf` and
`bert` write files, and `int8` quantizes weights. `running` runs the files. `parity` compares and measures them.
"""
