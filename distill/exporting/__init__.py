"""Exports students to the formats of other runtimes, and compares each exported file with the student.

    distill.export("runs/demo", "onnx")   # → runs/demo/student/onnx

`make` implements `distill export`. For each format, MODEL_FORMATS names the function that writes each kind of student.
`onnx`, `gguf` and `bert` write files, and `int8` quantizes weights. `running` runs exported files. `parity` compares
the files with the student, and measures the size, speed and memory of each.
"""
