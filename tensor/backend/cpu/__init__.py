"""Compiled bodies of ops on the CPU, from the extra `fast`: found at the first use of an op that has one."""
