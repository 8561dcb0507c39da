"""Networks: tensors to tensors. Nothing here knows a modality, a loss or where tensors come from."""
