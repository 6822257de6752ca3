"""Start-up logs in each engine's format, with numbers that belong together."""

VLLM_FP8_ONE_CARD = """\
(APIServer pid=1) INFO 08-20 10:00:00 [api_server.py:592] vLLM API server version 0.28.0
(APIServer pid=1) INFO 08-20 10:00:00 [utils.py:233] non-default args: {'model_tag': 'Q/Qwen3-FP8', 'model': 'Q/Qwen3-FP8', 'max_model_len': 131072, 'gpu_memory_utilization': 0.92, 'max_num_batched_tokens': 8192, 'max_num_seqs': 64}
(EngineCore pid=9) INFO 08-20 10:00:09 [core.py:114] Initializing a V1 LLM engine (v0.28.0) with config: model='Q/Qwen3-FP8', dtype=torch.bfloat16, max_seq_len=131072, tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1, quantization=fp8, kv_cache_dtype=auto,
(EngineCore pid=9) INFO 08-20 10:01:00 [gpu_model_runner.py:5150] Model loading took 29.05 GiB memory and 41.250000 seconds
(EngineCore pid=9) INFO 08-20 10:01:20 [gpu_worker.py:760] Available KV cache memory: 57.10 GiB
(EngineCore pid=9) INFO 08-20 10:01:20 [kv_cache_utils.py:2327] GPU KV cache size: 623,680 tokens, Maximum concurrency for 131,072 tokens per request: 4.76x
(EngineCore pid=9) INFO 08-20 10:01:31 [gpu_model_runner.py:6456] Graph capturing finished in 7 secs, took 0.31 GiB
(EngineCore pid=9) INFO 08-20 10:01:31 [gpu_worker.py:990] Free memory on device (94.41/94.97 GiB) on startup. Desired GPU memory utilization is (0.92, 87.37 GiB).
(APIServer pid=1) INFO 08-20 10:05:31 [loggers.py:127] Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 160.2 tokens/s, Running: 1 reqs
"""  # noqa: E501

VLLM_TOO_LONG = """\
INFO 05-02 [gpu_model_runner.py:1347] Model loading took 30.5000 GiB and 12.0 seconds
ValueError: To serve at least one request with the models's max seq len (262144), (24.0 GiB KV
cache is needed, which is larger than the available KV cache memory (3.18 GiB). Based on the
available memory, the estimated maximum model length is 34736. Try increasing
`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.
"""

SGLANG_TWO_CARDS = """\
[2026-03-01 10:00:00] server_args=ServerArgs(model_path='Qwen/Qwen3-30B-A3B', tp_size=2, pp_size=1, dp_size=1, ep_size=1, mem_fraction_static=0.85, context_length=None, kv_cache_dtype='auto', quantization=None, chunked_prefill_size=8192, max_running_requests=None)
[2026-03-01 10:00:20 TP0] Load weight begin. avail mem=78.20 GB
[2026-03-01 10:01:00 TP0] Load weight end. type=Qwen3MoeForCausalLM, dtype=torch.bfloat16, avail mem=49.70 GB, mem usage=28.45 GB.
[2026-03-01 10:01:01 TP0] Using KV cache dtype: torch.bfloat16
[2026-03-01 10:01:02 TP0] KV Cache is allocated. #tokens: 829986, K size: 19.00 GB, V size: 19.00 GB
[2026-03-01 10:01:02 TP0] Memory pool end. avail mem=11.40 GB
[2026-03-01 10:01:12 TP0] Capture cuda graph end. Time elapsed: 8.04 s. mem usage=0.80 GB. avail mem=10.30 GB.
[2026-03-01 10:01:13 TP0] max_total_num_tokens=829986, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=2048, context_len=40960, available_gpu_mem=10.30 GB
"""  # noqa: E501

LLAMA_CPP_ONE_CARD = """\
ggml_cuda_init: found 1 CUDA devices:
  Device 0: NVIDIA RTX PRO 6000 Blackwell Workstation Edition, compute capability 12.0, VMM: yes
build: 6413 (233d773d0) with cc for x86_64-linux-gnu
srv    load_model: loading model 'qwen3.gguf'
print_info: file format = GGUF V3 (latest)
print_info: file type   = Q4_K - Medium
print_info: file size   = 17.28 GiB (4.86 BPW)
print_info: n_ctx_train      = 40960
load_tensors: offloaded 49/49 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   166.92 MiB
load_tensors:        CUDA0 model buffer size = 17524.42 MiB
llama_context: n_seq_max     = 1
llama_context: n_ctx         = 32768
llama_context: n_batch       = 2048
llama_context: n_ubatch      = 512
llama_kv_cache:      CUDA0 KV buffer size =  3072.00 MiB
llama_kv_cache: size = 3072.00 MiB ( 32768 cells,  48 layers,  1/1 seqs), K (f16): 1536.00 MiB, V (f16): 1536.00 MiB
llama_context:      CUDA0 compute buffer size =   304.75 MiB
llama_context:  CUDA_Host compute buffer size =    68.01 MiB
prompt eval time =     149.75 ms /    14 tokens (   10.70 ms per token,    93.49 tokens per second)
       eval time =    4173.56 ms /   189 tokens (    4.00 ms per token,   250.29 tokens per second)
llama_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model   context   compute    unaccounted |
llama_memory_breakdown_print: |   - CUDA0 (RTX PRO 6000) | 97249 = 75747 + (20901 = 17524 +    3072 +     304) +         600 |
"""  # noqa: E501
