import assert from 'node:assert/strict'
import { memoryStore } from 'latchkey'
import { storeConformance } from 'latchkey/testing'
import { test } from 'vitest'

storeConformance({ test, assert }, memoryStore)
