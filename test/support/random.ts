export { createRandom, type Random } from '../../lib/testing/random.ts'
