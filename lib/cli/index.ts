export { defineConfig, type LatchkeyConfig, type RedisAddress, type StoreAddress } from './config.ts'
