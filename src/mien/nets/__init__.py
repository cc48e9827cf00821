"""Networks: tensors in, tensors out; no file is read here."""
